"""A study's ranks of mixers against those of published scores: the scores as data, and how far both agree."""

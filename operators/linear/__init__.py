"""Products of linear attention that mixers of several families share, each beside its plain reference."""

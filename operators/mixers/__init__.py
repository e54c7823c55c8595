"""The mixers, one file each, in folders by family; the registry finds them here."""

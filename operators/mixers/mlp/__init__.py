"""Mixers by learned matrices over the tokens of one grid."""

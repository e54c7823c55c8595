"""What stands around every core: projections, expansion, gate, norm; and how it is asked for."""

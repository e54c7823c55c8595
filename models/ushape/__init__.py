"""The U-shaped generator: stages of blocks on grids that halve and double, with skip connections."""

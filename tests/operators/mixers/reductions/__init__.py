"""The reduction graph, a module a family: a mixer with special parameters is another one, or a known function."""

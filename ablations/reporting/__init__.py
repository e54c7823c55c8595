"""From a study's directory to its report: reading it, analysing blocks and searches, words, figures and pages."""

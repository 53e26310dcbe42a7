//! One declaration table of every configuration.

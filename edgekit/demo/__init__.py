"""The demonstration: two small students trained in seconds on scikit-learn's own material, taken the whole path."""

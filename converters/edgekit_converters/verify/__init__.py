"""Reference against every engine; the quality gate; coverage; golden data."""

"""Coverage-guided fuzzing of the three parsers: tokens, sealed records, WeChat's answers.

`python -m tests.fuzz SECONDS` runs it; tests/test_fuzz.py replays the corpus without any fuzzer.
"""

"""Coverage-guided fuzzing of three parsers: tokens, sealed records and WeChat's answers.

`python -m tests.fuzz SECONDS` runs it. tests/test_fuzz.py runs the corpus without a fuzzer.
"""

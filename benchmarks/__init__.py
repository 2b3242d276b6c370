"""`make bench`: compare this service with its alternatives. Not part of the package.

- `contenders/`: the services under comparison, and how each is started; those in JavaScript are in `node/`
- `harness/`: servers, load and test users
- `measure/`: one module for each measurement
- `report/`: bars, tables and charts, computed from `results.json`
"""

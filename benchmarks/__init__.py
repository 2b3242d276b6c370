"""`make bench`: this service measured beside what a user would pick instead. Not part of the package.

Reading order: places, identity, table; procs, machine, running, seeding, load; throughput, login, footprint,
keyspace, feed, layers, samples; bars, charts, report, scale; __main__.
"""

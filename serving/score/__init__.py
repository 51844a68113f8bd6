"""Batch scoring: runs a signature of an artifact over all rows of Parquet files, by Ray Data.

The rows are planned into parts, ranges of rows of one file (`plan`). A worker reads and checks
the rows of a part (`rows`), runs the ONNX file over them and publishes a Parquet file by one
rename (`worker`). `run` hands parts to Ray Data until all are done.

Rows are numbered over all files in the order of their names. Row i has the seed pair [seed, i]
and always takes place i mod B of a batch of B rows. So every number is the same to the last bit
however files are cut, whoever computes them and however often the run was interrupted.
"""

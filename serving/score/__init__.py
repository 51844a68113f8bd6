"""Batch scoring: a signature of an artifact over all rows of Parquet files, by Ray Data.

The rows are planned into parts, ranges of rows of one file (`plan`). A worker reads the rows of a
part and checks them (`rows`), runs the ONNX file over them and publishes a Parquet part by one
rename (`worker`). `run` hands parts to Ray Data until all are there.

The seed pair of row i, counted over all files in the order of their names, is [seed, i], and row i
always takes place i mod B of a batch of B rows. So every number is the same to the last bit however
files are cut, whoever computes them and however often the run was interrupted.
"""

"""PrimFunc -> LLVM IR -> object code."""

"""From scheduled PrimFuncs to native code."""

"""PrimFunc -> C99: readable functions, with vectors where the compiler has GCC's extension for them."""

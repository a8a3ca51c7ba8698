"""GGUF models on llama.cpp, in a child process of their own. `backend` is this side of the pipe, `child` the other."""

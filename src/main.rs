//! The command line, handed to the library.

fn main() {}

//! coord
fn main() {}

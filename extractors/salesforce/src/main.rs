//! The process `drover-extractor-salesforce`.

fn main() {}

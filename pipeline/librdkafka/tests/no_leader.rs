//! A Fetch answer that tells of partitions without a leader, with the mended file
//! and without it. librdkafka's in-process broker can give such an answer by its
//! C interface only, so the program is in C.

use std::path::Path;
use std::process::Command;

/// Builds `no_leader.c` with these libraries first; gives what runs it, which
/// returns its exit code.
fn built(name: &str, first: &[&str]) -> impl FnMut() -> Option<i32> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/no_leader.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut compile = Command::new("cc");
    compile
        .args(["-I", env!("LIBRDKAFKA")])
        .arg(here)
        .args(first)
        .arg(concat!(env!("LIBRDKAFKA"), "/librdkafka.a"))
        .arg(concat!(env!("ZSTD"), "/libzstd.a"))
        .arg(concat!(env!("ZLIB"), "/libz.a"))
        .args(["-lssl", "-lcrypto", "-ldl", "-lpthread", "-lm", "-o"])
        .arg(&program);
    assert!(compile.status().expect("cc").success(), "{compile:?}");
    // What nobody wrote is never zero by chance: glibc fills new memory with
    // this byte's complement (mallopt(3)).
    let mut program = Command::new(program);
    program.env("MALLOC_PERTURB_", "165");
    move || program.status().expect("it runs").code()
}

#[test]
fn a_partition_without_a_leader_is_left_out() {
    let whole = [
        "-Wl,--whole-archive",
        concat!(env!("MENDED"), "/libmended.a"),
        "-Wl,--no-whole-archive",
    ];
    let mut run = built("mended", &whole);
    for _ in 0..5 {
        assert_eq!(run(), Some(0));
    }
}

/// When this fails, librdkafka counts right itself: drop this crate. Which answer
/// its broker gives first is a race, so it is asked more than once.
#[test]
fn without_the_mended_file_what_nobody_wrote_is_read() {
    let mut run = built("as_it_was", &[]);
    assert!((0..40).any(|_| run() == Some(1)));
}

/// Whatever links this crate has the mended file, by its debug information: this
/// test too.
#[test]
fn the_mended_file_is_linked() {
    use drover_librdkafka as _;
    let own = std::fs::read(std::env::current_exe().expect("a path")).expect("this program");
    // Put together here, or the test would find its own text.
    let name = [env!("MENDED"), "rdkafka_fetcher.c"].join("/");
    assert!(own.windows(name.len()).any(|part| part == name.as_bytes()));
}

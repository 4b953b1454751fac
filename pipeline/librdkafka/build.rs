//! Compiles one file of librdkafka once more, with a defect mended, and has it
//! linked in the place of the original. The file is the one that `rdkafka-sys`
//! has just built; nothing of librdkafka is kept here.

use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

/// The file, in librdkafka's `src/`.
const FILE: &str = "rdkafka_fetcher.c";

/// What stands after the loop that takes over the partitions of a topic whose
/// leader a Fetch answer tells (KIP-951). The loop leaves out those that have
/// none at the moment, but the count of partitions still includes them.
const DEFECT: &str = "
                                changed_partition++;
                        }
                        changed_topic++;
";

/// The count is that of the partitions taken over.
const MENDED: &str = "
                                changed_partition++;
                        }
                        md->topics[changed_topic].partition_cnt =
                            changed_partition;
                        changed_topic++;
";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    let root = built("DEP_RDKAFKA_ROOT")?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let source = root.join("src").join(FILE);
    let text = fs::read_to_string(&source)?;
    if text.matches(DEFECT).count() != 1 {
        return Err(format!(
            "{} is not as expected; when this librdkafka counts right itself, drop this crate",
            source.display()
        )
        .into());
    }
    let mended = out.join(FILE);
    fs::write(&mended, text.replace(DEFECT, MENDED))?;
    cc::Build::new()
        .file(&mended)
        .include(root.join("src"))
        .opt_level(2)
        .debug(true)
        .warnings(false)
        // Before librdkafka and as a whole, so that the linker needs no other.
        .link_lib_modifier("+whole-archive")
        .try_compile("mended")?;
    // For the test: the libraries to link, the mended one first.
    println!("cargo:rustc-env=LIBRDKAFKA={}", root.join("src").display());
    println!("cargo:rustc-env=MENDED={}", out.display());
    println!("cargo:rustc-env=ZSTD={}", built("DEP_ZSTD_ROOT")?.display());
    println!(
        "cargo:rustc-env=ZLIB={}",
        built("DEP_Z_ROOT")?.join("lib").display()
    );
    Ok(())
}

/// The folder in which a dependency has built its library.
fn built(variable: &str) -> Result<PathBuf, String> {
    env::var_os(variable).map(PathBuf::from).ok_or(format!(
        "{variable} is not set: its crate must build the library itself, not link one that is installed"
    ))
}

//! What the figures were measured on, without naming anybody's machine.

use serde::{Deserialize, Serialize};

/// A machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// How many processors this process may use.
    pub processors: usize,
    /// Their model, as Linux names it.
    pub model: String,
    /// Memory in whole GiB, rounded.
    pub memory_gib: u64,
    /// Linux's version.
    pub kernel: String,
}

impl Machine {
    /// This one. What `/proc` does not tell stays empty.
    pub fn this() -> Machine {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, name: &str| {
            text.lines()
                .find(|line| line.starts_with(name))
                .and_then(|line| line.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
                .unwrap_or_default()
        };
        let kib: u64 = value(&read("/proc/meminfo"), "MemTotal")
            .split_whitespace()
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or_default();
        Machine {
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            model: value(&read("/proc/cpuinfo"), "model name"),
            memory_gib: (kib + (1 << 19)) >> 20,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }

    /// A short name for files: `x86_64-2cpu-24gib`.
    pub fn name(&self) -> String {
        format!(
            "{}-{}cpu-{}gib",
            std::env::consts::ARCH,
            self.processors,
            self.memory_gib
        )
    }
}

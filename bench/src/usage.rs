//! What a process has used, from `/proc`.

/// CPU and memory of a process up to now.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// User and system time in seconds, in steps of 10 ms.
    pub cpu: f64,
    /// The most memory that was ever resident, in bytes (`VmHWM`).
    pub peak: u64,
    /// The memory that is resident now, in bytes (`VmRSS`).
    pub resident: u64,
}

impl Usage {
    /// Of the process with that id; `None` when it has gone.
    pub fn of(pid: u32) -> Option<Usage> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        // The name stands in parentheses and may hold anything. Behind it
        // utime and stime are the 12th and 13th field, in hundredths.
        let (_, behind) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = behind.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let bytes = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
            Some(kib << 10)
        };
        Some(Usage {
            cpu: (ticks(11)? + ticks(12)?) as f64 / 100.0,
            peak: bytes("VmHWM:")?,
            resident: bytes("VmRSS:")?,
        })
    }
}

/// Bytes as MiB.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_its_own() {
        let touched = std::hint::black_box(vec![1_u8; 16 << 20]);
        let usage = Usage::of(std::process::id()).expect("ourselves");
        // Linux counts pages in batches, so not to the byte.
        assert!(usage.resident > 15 << 20, "{usage:?}");
        assert!(usage.peak > 15 << 20, "{usage:?}");
        assert_eq!(touched[touched.len() - 1], 1);
        assert!(Usage::of(u32::MAX).is_none());
    }
}

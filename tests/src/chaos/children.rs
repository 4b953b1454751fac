//! The children of `drover run`, as Linux tells them.

use std::collections::BTreeMap;
use std::fs;

use nix::unistd::Pid;

/// By instance, the processes that were started for it by that one.
pub fn children(parent: Pid) -> BTreeMap<String, Pid> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    // Each thread tells the children that it started itself.
    let text: Vec<String> = tasks
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .collect();
    text.iter()
        .flat_map(|line| line.split_whitespace())
        .filter_map(|pid| Some(Pid::from_raw(pid.parse().ok()?)))
        .filter_map(|pid| Some((instance(pid)?, pid)))
        .collect()
}

/// The instance that a process was started as.
fn instance(pid: Pid) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split(|byte| *byte == 0);
    words.find(|word| *word == b"--instance")?;
    let name = String::from_utf8(words.next()?.to_vec()).ok()?;
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_found_by_its_instance() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "read line", "sh", "--instance", "loader-7"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("a shell");
        let pid = Pid::from_raw(child.id() as i32);
        // It may still be our own image, before its own begins.
        let found = loop {
            let found = children(Pid::this());
            if found.contains_key("loader-7") {
                break found;
            }
        };
        assert_eq!(found.get("loader-7"), Some(&pid));
        child.kill().expect("it ends");
        child.wait().expect("it has ended");
        assert!(!children(Pid::this()).contains_key("loader-7"));
    }
}

//! Rules about one source file.

/// Most lines of a file, unless it is in the allow list.
pub const MAX_LINES: usize = 400;

/// What a core may not use, and why.
const BANNED_IN_CORES: [(&str, &str); 10] = [
    ("tokio", "a core never waits"),
    ("tonic", "a core never sends"),
    ("std::thread", "a core has no threads"),
    ("std::fs", "a core has no files"),
    ("std::net", "a core has no sockets"),
    ("Instant::now", "time is an argument"),
    ("SystemTime", "time is an argument"),
    ("thread_rng", "chance is an argument"),
    ("rand::rng", "chance is an argument"),
    ("from_os_rng", "chance is an argument"),
];

/// Parts of `consensus` that are shells: threads, sockets, disks.
const SHELLS_OF_CONSENSUS: [&str; 3] =
    ["consensus/src/node", "consensus/src/engine/rocks", "consensus/src/engine/synced"];

/// True for files that hold deciding code: plain values without IO.
pub fn is_core(path: &str) -> bool {
    path.contains("/src/core/")
        || (path.starts_with("consensus/src/")
            && !SHELLS_OF_CONSENSUS.iter().any(|shell| path.starts_with(shell)))
}

/// A module opens with prose.
pub fn opens_with_prose(text: &str) -> Result<(), String> {
    // Attributes and plain remarks about them may stand before it.
    let skipped =
        |line: &&str| line.trim().is_empty() || line.starts_with("#![") || line.starts_with("// ");
    let first = text.lines().find(|line| !skipped(line));
    match first {
        Some(line) if line.starts_with("//! ") && line.len() > 8 => Ok(()),
        Some(_) | None => Err("does not open with `//!` and what it is for".to_owned()),
    }
}

/// A file is short enough to be read in one go. `allowed` has lines and a reason.
pub fn is_short(path: &str, text: &str, allowed: &[(&str, usize, &str)]) -> Result<(), String> {
    let lines = text.lines().count();
    let limit = allowed
        .iter()
        .find(|(name, _, reason)| *name == path && !reason.is_empty())
        .map_or(MAX_LINES, |(_, lines, _)| *lines);
    if lines <= limit {
        Ok(())
    } else {
        Err(format!("has {lines} lines, at most {limit}: split it"))
    }
}

/// A core uses nothing that only a shell may.
pub fn is_pure(path: &str, text: &str) -> Result<(), String> {
    if !is_core(path) {
        return Ok(());
    }
    for (number, line) in (1..).zip(text.lines()) {
        let code = line.split("//").next().unwrap_or("");
        if let Some((used, why)) = BANNED_IN_CORES.iter().find(|(banned, _)| code.contains(banned))
        {
            return Err(format!("line {number} uses {used}: {why}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_comes_first() {
        assert!(opens_with_prose("//! What it is for.\nuse a;\n").is_ok());
        assert!(opens_with_prose("#![allow(x)]\n//! What it is for.\n").is_ok());
        assert!(opens_with_prose("use a;\n//! Too late.\n").is_err());
        assert!(opens_with_prose("//! x\n").is_err());
        assert!(opens_with_prose("").is_err());
    }

    #[test]
    fn long_files_need_a_reason() {
        let long = "x\n".repeat(MAX_LINES + 1);
        assert!(is_short("a.rs", &long[2..], &[]).is_ok());
        assert!(is_short("a.rs", &long, &[]).is_err());
        assert!(is_short("a.rs", &long, &[("a.rs", 500, "one table")]).is_ok());
        assert!(is_short("a.rs", &long, &[("a.rs", 500, "")]).is_err());
        assert!(is_short("b.rs", &long, &[("a.rs", 500, "one table")]).is_err());
    }

    #[test]
    fn cores_and_shells_are_told_apart() {
        assert!(is_core("store/src/core/applier/mod.rs"));
        assert!(is_core("consensus/src/shard/mod.rs"));
        assert!(!is_core("consensus/src/node/mod.rs"));
        assert!(!is_core("consensus/src/engine/rocks.rs"));
        assert!(!is_core("store/src/run.rs"));
    }

    #[test]
    fn a_core_that_reads_the_clock_is_caught() {
        let core = "placement/src/core/mod.rs";
        assert!(is_pure(core, "// as in tokio\nlet a = 1;\n").is_ok());
        assert_eq!(
            is_pure(core, "\nlet now = std::time::Instant::now();\n"),
            Err("line 2 uses Instant::now: time is an argument".to_owned())
        );
        assert!(is_pure(core, "use tokio::sync::mpsc;\n").is_err());
        assert!(is_pure("placement/src/shell/mod.rs", "use tokio::sync::mpsc;\n").is_ok());
    }
}

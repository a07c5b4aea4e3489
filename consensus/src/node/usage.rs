//! What the operating system says this process uses (Linux; elsewhere nothing).

/// Clock ticks a second and bytes a page, as all of Linux's common platforms have them.
const TICKS_PER_SECOND: f64 = 100.0;
const PAGE_BYTES: u64 = 4096;

/// Seconds of processor time since the start, and bytes of memory that are resident.
pub fn usage() -> Option<(f64, u64)> {
    parse(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

fn parse(stat: &str) -> Option<(f64, u64)> {
    // The second field is the program's name in parentheses; it may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let ticks = number(11)? + number(12)?;
    Some((ticks as f64 / TICKS_PER_SECOND, number(21)? * PAGE_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_program_may_hold_anything() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4 9 0 0 0 150 50 0 0 20 0 8 0 99 1000 25 18446744";
        assert_eq!(parse(stat), Some((2.0, 25 * 4096)));
        assert_eq!(parse("7 (cut off"), None);
    }
}

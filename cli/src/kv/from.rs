//! `--read`: which replica answers.

use std::time::Duration;

use quorate_client::{ReadFrom, ReadOptions};

/// How old a stale read may be where no bound is given.
const STALE: Duration = Duration::from_secs(10);

/// The flag.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct From {
    /// Who answers: `leader`, `follower` (any other replica, which asks the leader), `learner` (one
    /// without a vote where there is one; it asks the leader, too), or `stale:MS`
    /// (any replica that is at most MS milliseconds old; `stale` alone: 10,000)
    #[arg(long = "read", value_name = "WHO", default_value = "leader", value_parser = parse)]
    from: ReadFrom,
}

impl From {
    /// For the client.
    pub(crate) fn options(self) -> ReadOptions {
        ReadOptions { from: self.from, deadline: None }
    }
}

fn parse(text: &str) -> Result<ReadFrom, String> {
    match text.split_once(':') {
        None if text == "leader" => Ok(ReadFrom::Leader),
        None if text == "follower" => Ok(ReadFrom::Follower),
        None if text == "learner" => Ok(ReadFrom::Learner),
        None if text == "stale" => Ok(ReadFrom::Stale(STALE)),
        Some(("stale", millis)) => match millis.parse::<u64>() {
            Ok(millis) if millis > 0 => Ok(ReadFrom::Stale(Duration::from_millis(millis))),
            Ok(_) | Err(_) => Err(format!("`{millis}` is no number of milliseconds above 0")),
        },
        None | Some(_) => Err("write leader, follower, learner, stale, or stale:MS".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_answers_is_read_from_words() {
        assert_eq!(parse("leader"), Ok(ReadFrom::Leader));
        assert_eq!(parse("follower"), Ok(ReadFrom::Follower));
        assert_eq!(parse("learner"), Ok(ReadFrom::Learner));
        assert_eq!(parse("stale"), Ok(ReadFrom::Stale(Duration::from_secs(10))));
        assert_eq!(parse("stale:250"), Ok(ReadFrom::Stale(Duration::from_millis(250))));
        for wrong in ["", "anybody", "stale:", "stale:0", "stale:-1", "stale:1s", "leader:5"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}

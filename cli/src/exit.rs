//! How a command ends: exit codes and the one sentence on stderr.
//!
//! 0 healthy or done, 1 error, 2 degraded (it works, with less than it should
//! have) or not known yet (placement has a new leader), 3 unavailable (nobody answers). Usage errors are errors: 1.

use std::io::Write as _;
use std::process::ExitCode;

/// How a command that did not simply succeed ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// Done; used where there is nothing more to say (a reader went away).
    Done,
    /// Something was wrong: input, environment, a refused request.
    Error,
    /// It works, with less than it should have, or nobody can say yet.
    Degraded,
    /// Nobody answers.
    Unavailable,
}

impl Code {
    fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Error => 1,
            Self::Degraded => 2,
            Self::Unavailable => 3,
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.number())
    }
}

/// Why a command did not succeed, in words that say what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The process's exit code.
    pub(crate) code: Code,
    /// For stderr; empty where everything was said already.
    pub(crate) words: String,
}

impl Failure {
    /// Exit code 1.
    pub(crate) fn error(words: impl Into<String>) -> Self {
        Self { code: Code::Error, words: words.into() }
    }
    /// Exit code 3.
    pub(crate) fn unavailable(words: impl Into<String>) -> Self {
        Self { code: Code::Unavailable, words: words.into() }
    }
    /// That code, without words.
    pub(crate) fn quiet(code: Code) -> Self {
        Self { code, words: String::new() }
    }
    /// Writes the words to stderr and gives the exit code.
    pub(crate) fn finish(self) -> ExitCode {
        if !self.words.is_empty() {
            // Nobody is left to tell where stderr is closed.
            let _ = writeln!(std::io::stderr(), "quorate: {}", self.words);
        }
        self.code.into()
    }
}

/// What every command returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

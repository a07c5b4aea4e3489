//! The program under test, and one command of it from start to end.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest a command may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks at whether a command has ended.
const POLL: Duration = Duration::from_millis(5);

/// The program: what `QUORATE_PROGRAM` names, else the one beside this test's own build.
///
/// # Panics
/// When it was not built.
pub fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("QUORATE_PROGRAM").filter(|name| !name.is_empty()) {
        let path = PathBuf::from(named);
        assert!(path.is_file(), "QUORATE_PROGRAM names {}, which is no file", path.display());
        return path;
    }
    let own = std::env::current_exe().expect("a test knows its own path");
    // target/debug/deps/process-0123 → target/debug/quorate
    let path = own.parent().and_then(Path::parent).map(|folder| folder.join("quorate"));
    path.filter(|path| path.is_file()).unwrap_or_else(|| {
        panic!(
            "the program is not built: run `cargo build -p quorate-cli` with the same profile \
             first, or name it with QUORATE_PROGRAM (looked beside {})",
            own.display()
        )
    })
}

/// The program with an environment of its own: nothing of the caller's settings reaches it, and
/// what it remembers for later commands stays in `home`.
pub(super) fn command(home: &Path) -> Command {
    let mut command = Command::new(program());
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("QUORATE_")) {
            command.env_remove(name);
        }
    }
    command.env("XDG_STATE_HOME", home.join("state")).env_remove("RUST_LOG").current_dir(home);
    command
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    /// What was asked, for words.
    pub asked: String,
    /// The exit code; -1 after a signal.
    pub code: i32,
    /// Data.
    pub stdout: String,
    /// Everything else.
    pub stderr: String,
}

impl Ran {
    /// Itself, if it ended with `code`.
    ///
    /// # Panics
    /// When it ended otherwise, with all that it said.
    #[track_caller]
    pub fn with_code(self, code: i32) -> Ran {
        assert_eq!(
            self.code, code,
            "`quorate {}` ended with {} instead of {code}\nstdout: {}\nstderr: {}",
            self.asked, self.code, self.stdout, self.stderr
        );
        self
    }

    /// Checks a refusal: exit code, and one sentence on stderr with these words and no panic.
    ///
    /// # Panics
    /// When it is another.
    #[track_caller]
    pub fn refused(self, code: i32, words: &[&str]) {
        let ran = self.with_code(code);
        for word in words {
            assert!(
                ran.stderr.contains(word),
                "`quorate {}` does not say {word:?}: {}",
                ran.asked,
                ran.stderr
            );
        }
        for trace in ["panicked", "RUST_BACKTRACE", "stack backtrace"] {
            assert!(!ran.stderr.contains(trace), "{} shows {trace}: {}", ran.asked, ran.stderr);
        }
    }
}

/// Runs one command to its end, with `home` as its folder.
///
/// # Panics
/// When it does not end within 90 s.
#[track_caller]
pub fn run(home: &Path, arguments: &[&str]) -> Ran {
    finish(command(home).args(arguments), arguments)
}

/// [`run`] for a command that may take long.
///
/// # Panics
/// When it does not end within `patience`.
#[track_caller]
pub fn run_for(home: &Path, arguments: &[&str], patience: Duration) -> Ran {
    finish_within(command(home).args(arguments), arguments, patience)
}

/// Runs a prepared command to its end.
#[track_caller]
pub(super) fn finish(command: &mut Command, arguments: &[&str]) -> Ran {
    finish_within(command, arguments, PATIENCE)
}

#[track_caller]
fn finish_within(command: &mut Command, arguments: &[&str], patience: Duration) -> Ran {
    let asked: String = arguments.join(" ").chars().take(200).collect();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{} cannot be started: {error}", program().display()));
    let stdout = drain(child.stdout.take().expect("stdout is piped"));
    let stderr = drain(child.stderr.take().expect("stderr is piped"));
    let code = wait(&mut child, &asked, patience);
    let text = |reader: JoinHandle<String>| reader.join().expect("a reader of a pipe ends");
    Ran { asked, code, stdout: text(stdout), stderr: text(stderr) }
}

#[track_caller]
fn wait(child: &mut Child, asked: &str, patience: Duration) -> i32 {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return status.code().unwrap_or(-1);
        }
        if Instant::now() >= deadline {
            // It is our own child; it may have ended since.
            let _ = child.kill();
            let _ = child.wait();
            panic!("`quorate {asked}` did not end within {patience:?}");
        }
        std::thread::sleep(POLL);
    }
}

fn drain(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before a failure is what there is to show.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

//! One process of a cluster: a child that is started, hurt, and started again as it was.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::program;
use super::spawner;
use super::wait::until;

/// Longest wait for a step of one HTTP exchange.
const HTTP: Duration = Duration::from_secs(2);
/// How long the system gets to end a process that was killed.
const AFTER_KILL: Duration = Duration::from_secs(20);

/// An answer of a status address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The HTTP status.
    pub status: u16,
    /// The text.
    pub body: String,
}

/// A process of the program, or the place of one that is down.
#[derive(Debug)]
pub struct Node {
    /// `store-1`.
    pub name: String,
    /// `HOST:PORT` for clients and other processes.
    pub address: String,
    /// `HOST:PORT` of its status pages.
    pub status_address: String,
    /// Its data folder.
    pub data: PathBuf,
    home: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// A process that was not started yet. `role` is the command; address, status address and
    /// data folder are given by flags, `more` are further ones.
    pub fn new(home: &Path, role: &str, number: usize, more: Vec<String>) -> Node {
        let (address, status_address) = super::free_pair();
        Node::at(home, role, &format!("{role}-{number}"), (address, status_address), more)
    }

    /// [`Node::new`] with a name and addresses of the caller's choice.
    pub fn at(
        home: &Path,
        role: &str,
        name: &str,
        (address, status_address): (String, String),
        more: Vec<String>,
    ) -> Node {
        let data = home.join(name);
        let arguments = vec![
            role.to_owned(),
            format!("--listen={address}"),
            format!("--status-address={status_address}"),
            format!("--data={}", data.display()),
        ];
        let (name, home) = (name.to_owned(), home.to_owned());
        let log = home.join(format!("{name}.log"));
        let mut node =
            Node { name, address, status_address, data, home, arguments, log, child: None };
        more.iter().for_each(|flag| node.replace_flag(flag));
        node
    }

    /// Gives a flag (`--name=value`) another value from the next start on, or adds it.
    pub fn replace_flag(&mut self, flag: &str) {
        let name = flag.split_once('=').map_or(flag, |(name, _)| name);
        let is_same =
            |given: &String| given.split_once('=').is_some_and(|(given, _)| given == name);
        self.arguments.retain(|given| !is_same(given));
        self.arguments.push(flag.to_owned());
    }

    /// Where it logs from the next start on.
    pub fn log_to(&mut self, path: &Path) {
        self.log = path.to_owned();
    }

    /// Starts the process, with the arguments of every other time.
    ///
    /// # Panics
    /// When it runs already, or cannot be started.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.unwrap_or_else(|error| panic!("{}: {error}", self.log.display()));
        let errors = log.try_clone().expect("a file can be opened twice");
        let mut command = program::command(&self.home);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = spawner::spawn(command);
        self.child = Some(child.unwrap_or_else(|error| panic!("{}: {error}", self.name)));
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// kill -9, and waits until it is gone.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        let status = self.ended(AFTER_KILL);
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{} ended before the kill", self.name);
    }

    /// Asks it to end. [`Node::ended`] waits for that.
    ///
    /// # Panics
    /// When it does not run.
    pub fn terminate(&self) {
        self.signal(libc::SIGTERM);
    }

    /// Takes its processor away.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// Gives it back.
    ///
    /// # Panics
    /// When it does not run.
    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Waits until it has ended, and says how.
    ///
    /// # Panics
    /// When it does not end within `patience`, or was not started.
    #[track_caller]
    pub fn ended(&mut self, patience: Duration) -> ExitStatus {
        let child = self.child.as_mut().unwrap_or_else(|| panic!("{} does not run", self.name));
        let what = format!("{} ends", self.name);
        let status = until(&what, patience, || {
            let status = child.try_wait().map_err(|error| error.to_string())?;
            status.ok_or_else(|| "it runs".to_owned())
        });
        self.child = None;
        status
    }

    /// Waits until it has ended by itself, with exit code 1 and a sentence that says these words.
    ///
    /// # Panics
    /// When it ends otherwise, or not within `patience`.
    #[track_caller]
    pub fn refuses(&mut self, patience: Duration, words: &[&str]) {
        let status = self.ended(patience);
        let log = self.log_text();
        let last = log.lines().last().unwrap_or_default();
        assert_eq!(status.code(), Some(1), "{} ended with {status}: {log}", self.name);
        for word in words {
            assert!(last.contains(word), "{} does not say {word:?} last: {log}", self.name);
        }
        assert!(!log.contains("panicked"), "{} panicked: {log}", self.name);
    }

    /// A page of its status address.
    ///
    /// # Errors
    /// Nobody answers in time, or not in HTTP.
    pub fn page(&self, path: &str) -> io::Result<Page> {
        let address: SocketAddr = self.status_address.parse().map_err(io::Error::other)?;
        let mut stream = TcpStream::connect_timeout(&address, HTTP)?;
        stream.set_read_timeout(Some(HTTP))?;
        stream.set_write_timeout(Some(HTTP))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let broken = || io::Error::other(format!("no HTTP: {answer}"));
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
        let status = head.split_whitespace().nth(1).and_then(|code| code.parse().ok());
        Ok(Page { status: status.ok_or_else(broken)?, body: body.to_owned() })
    }

    /// `/health`, parsed.
    ///
    /// # Errors
    /// As [`Node::page`], and where it is no JSON.
    pub fn health(&self) -> io::Result<Value> {
        let page = self.page("/health")?;
        serde_json::from_str(&page.body).map_err(io::Error::other)
    }

    /// Waits until `/ready` says 200.
    ///
    /// # Panics
    /// When it does not within `patience`, or the process ended.
    #[track_caller]
    pub fn ready(&mut self, patience: Duration) {
        let name = self.name.clone();
        until(&format!("{name} is ready"), patience, || {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok()?) {
                panic!("{name} ended with {status}: {}", self.log_text());
            }
            match self.page("/ready") {
                Ok(page) if page.status == 200 => Ok(()),
                Ok(page) => Err(page.body),
                Err(error) => Err(error.to_string()),
            }
        });
    }

    /// Where it logs.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// All that it logged; nothing where that went to a device.
    pub fn log_text(&self) -> String {
        match fs::metadata(&self.log) {
            Ok(log) if log.is_file() => fs::read_to_string(&self.log).unwrap_or_default(),
            Ok(_) | Err(_) => String::new(),
        }
    }

    fn signal(&self, signal: libc::c_int) {
        let pid = self.pid().unwrap_or_else(|| panic!("{} does not run", self.name));
        let pid = libc::pid_t::try_from(pid).expect("a pid fits its own type");
        // SAFETY: kill has no memory effects. The pid is that of a child that was not waited for,
        // so the system has not given it to another process.
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0, "{}: {}", self.name, io::Error::last_os_error());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself; then both fail and nothing is left to do.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

//! Starts one process of a local cluster, detached from the command that does.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::description::{Cluster, Member, Role};
use super::pid::Identity;
use crate::exit::{Failure, Outcome};

/// Variables that would give all processes the same address, folder or file.
const NOT_INHERITED: [&str; 4] =
    ["QUORATE_CONFIG", "QUORATE_ADVERTISE", "QUORATE_LOG_FILE", "QUORATE_LABELS"];
/// How much of the end of a log is read to say why a process ended.
const TAIL_BYTES: u64 = 4096;

/// What all processes of a cluster are started with.
pub(super) struct Launch<'a> {
    /// The data folder of the cluster.
    pub(super) folder: &'a Path,
    /// Its description.
    pub(super) cluster: &'a Cluster,
    /// What ties them to this command.
    pub(super) bond: Bond,
}

/// What ties a process to the command that starts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bond {
    /// Nothing: it has a session of its own.
    None,
    /// It stays in this login session.
    ThisSession,
    /// It stays in this login session, and ends when the command does, however that happens
    /// (on Linux; elsewhere only where the command can still end it).
    ThisProcess,
}

impl Launch<'_> {
    /// Starts a member.
    ///
    /// # Errors
    /// The process cannot be started, or ended at once.
    pub(super) fn start(&self, member: &Member) -> Outcome<Identity> {
        let name = member.name();
        let failed = |what: &str, error: &io::Error| {
            Failure::error(format!("{name} cannot be started: {what}: {error}"))
        };
        let program = std::env::current_exe()
            .map_err(|error| failed("this program's own path is unknown", &error))?;
        let log_path = Cluster::log_of(self.folder, member);
        let open = || {
            if let Some(parent) = log_path.parent() {
                fs::create_dir_all(parent)?;
            }
            let log = OpenOptions::new().create(true).append(true).open(&log_path)?;
            Ok((log.try_clone()?, log))
        };
        let (log, errors) =
            open().map_err(|error| failed(&log_path.display().to_string(), &error))?;
        let mut command = Command::new(program);
        command.args(self.arguments(member));
        for variable in NOT_INHERITED {
            command.env_remove(variable);
        }
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let bond = self.bond;
        // SAFETY: only calls that are allowed between fork and exec; nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                // The terminal's hangup and Ctrl-C must not reach it.
                if bond == Bond::None {
                    return checked(libc::setsid());
                }
                libc::signal(libc::SIGHUP, libc::SIG_IGN);
                checked(libc::setpgid(0, 0))?;
                #[cfg(target_os = "linux")]
                if bond == Bond::ThisProcess {
                    checked(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
                }
                Ok(())
            });
        }
        let child = command.spawn().map_err(|error| failed("spawn", &error))?;
        Identity::of(child.id()).ok_or_else(|| self.ended(member))
    }

    /// Why a process that should run does not, with the end of its log.
    pub(super) fn ended(&self, member: &Member) -> Failure {
        let path = Cluster::log_of(self.folder, member);
        let last = tail(&path).unwrap_or_default();
        let last: Vec<&str> = last.lines().rev().take(3).collect();
        let mut words = format!("{} ended; its log ({}) says:", member.name(), path.display());
        for line in last.iter().rev() {
            words.push_str("\n  ");
            words.push_str(line);
        }
        Failure::error(words)
    }

    fn arguments(&self, member: &Member) -> Vec<String> {
        let data = Cluster::folder_of(self.folder, member);
        let mut arguments = vec![
            member.role.to_string(),
            format!("--listen={}", member.address),
            format!("--status-address={}", member.status_address),
            format!("--data={}", data.display()),
        ];
        match member.role {
            Role::Placement => {
                let members = self.cluster.of(Role::Placement);
                let members: Vec<String> =
                    members.map(|other| format!("{}={}", other.number, other.address)).collect();
                let replicas = self.cluster.replicas();
                arguments.push(format!("--id={}", member.number));
                arguments.push(format!("--members={}", members.join(",")));
                arguments.push(format!("--initial-stores={replicas}"));
                arguments.push(format!("--replicas={replicas}"));
            }
            Role::Store => {
                arguments.push(format!("--placement={}", self.cluster.placement().join(",")));
            }
        }
        let config = self.folder.join(format!("{}.toml", member.role));
        if config.is_file() {
            arguments.push(format!("--config={}", config.display()));
        }
        arguments
    }
}

/// What a system call says, as a result.
fn checked(returned: libc::c_int) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

//! Starts children from one thread that never ends before the tests do.
//!
//! On Linux a child is told by the system when the *thread* that started it is gone. Tests run on
//! threads that come and go; this one stays, so children outlive their test's threads and no
//! child outlives the test program, even where that is killed.

use std::io;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

use parking_lot::Mutex;

type Job = (Command, Sender<io::Result<Child>>);

/// Starts a child that dies with this process.
pub(super) fn spawn(mut command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    bind_to_parent(&mut command);
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, answer) in jobs {
                // Whoever asked waits for it.
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (answer, child) = channel();
    let gone = |_| io::Error::other("the thread that starts processes is gone");
    spawner.lock().send((command, answer)).map_err(|_| gone(()))?;
    child.recv().map_err(|_| gone(()))?
}

#[cfg(target_os = "linux")]
fn bind_to_parent(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;
    // SAFETY: one system call that is allowed between fork and exec; nothing is allocated.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        });
    }
}

#[cfg(not(target_os = "linux"))]
fn bind_to_parent(_command: &mut Command) {}

//! Room on a disk.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Room on the disk of a folder, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub capacity: u64,
    /// What is free for us.
    pub available: u64,
}

/// Asks the file system of a folder; `None` where it does not answer.
pub fn space(folder: &Path) -> Option<Space> {
    let path = CString::new(folder.as_os_str().as_bytes()).ok()?;
    // SAFETY: statvfs is a plain structure of integers, valid when zeroed.
    let mut answer: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` ends with a zero byte, and both live through the call.
    let failed = unsafe { libc::statvfs(path.as_ptr(), &mut answer) } != 0;
    let block = answer.f_frsize as u64;
    (!failed).then(|| Space {
        capacity: answer.f_blocks as u64 * block,
        available: answer.f_bavail as u64 * block,
    })
}

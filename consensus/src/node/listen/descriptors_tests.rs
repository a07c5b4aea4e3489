//! The limit on open files.

#![allow(clippy::unwrap_used)]

use super::{enough, raise};

#[test]
fn too_few_descriptors_for_what_is_promised_are_refused_with_a_number_that_fits() {
    assert_eq!(enough(1 << 20, 4_096, 1_024), Ok(()));
    let words = enough(4_096, 4_096, 1_024).unwrap_err();
    let fits = words.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
    assert!(fits > 0, "{words}");
    assert_eq!(enough(4_096, fits, 1_024), Ok(()));
    assert!(enough(4_096, fits + 1, 1_024).is_err());
}

#[test]
fn the_soft_limit_is_raised_to_the_hard_one() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the calls only read or write the structure.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max - 1;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
    assert_eq!(raise().unwrap(), limit.rlim_max);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
    assert_eq!(limit.rlim_cur, limit.rlim_max);
}

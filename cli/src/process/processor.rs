//! What the engine takes for granted of the processor (see `.cargo/config.toml`).

use crate::exit::Outcome;

/// Whether this processor has what the engine was compiled for.
///
/// # Errors
/// It is of before 2010, or an emulator that pretends to be.
#[cfg(target_arch = "x86_64")]
pub(super) fn check() -> Outcome {
    use std::arch::is_x86_feature_detected;

    use crate::exit::Failure;

    // What cargo told the compiler of C++, for whichever of the targets this is.
    let flags = [
        option_env!("CXXFLAGS_x86_64_unknown_linux_gnu"),
        option_env!("CXXFLAGS_x86_64_unknown_linux_musl"),
        option_env!("CXXFLAGS_x86_64_apple_darwin"),
    ];
    let needed = flags.iter().flatten().any(|flags| flags.contains("-msse4.2"));
    if !needed || (is_x86_feature_detected!("sse4.2") && is_x86_feature_detected!("pclmulqdq")) {
        return Ok(());
    }
    Err(Failure::error(
        "this processor has no SSE 4.2 with PCLMULQDQ, which the storage engine was compiled for; \
         run it on one of 2010 or later (in a virtual machine: let it see the host's processor), \
         or take the flags out of .cargo/config.toml and build anew",
    ))
}

/// Others have nothing that is taken for granted.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn check() -> Outcome {
    Ok(())
}

//! The kinds of requests, as they are counted and answered.

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Get,
    BatchGet,
    Put,
    BatchPut,
    Delete,
    BatchDelete,
    DeleteRange,
    Scan,
    BatchScan,
}

impl Kind {
    /// All of them, in the order of [`Kind::index`].
    pub(crate) const ALL: [Kind; 9] = [
        Kind::Get,
        Kind::BatchGet,
        Kind::Put,
        Kind::BatchPut,
        Kind::Delete,
        Kind::BatchDelete,
        Kind::DeleteRange,
        Kind::Scan,
        Kind::BatchScan,
    ];

    /// Its place in [`Kind::ALL`].
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// Its name in metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Kind::Get => "raw_get",
            Kind::BatchGet => "raw_batch_get",
            Kind::Put => "raw_put",
            Kind::BatchPut => "raw_batch_put",
            Kind::Delete => "raw_delete",
            Kind::BatchDelete => "raw_batch_delete",
            Kind::DeleteRange => "raw_delete_range",
            Kind::Scan => "raw_scan",
            Kind::BatchScan => "raw_batch_scan",
        }
    }

    /// True for what changes nothing: giving up on it is safe.
    pub(crate) const fn is_read(self) -> bool {
        match self {
            Kind::Get | Kind::BatchGet | Kind::Scan | Kind::BatchScan => true,
            Kind::Put | Kind::BatchPut | Kind::Delete | Kind::BatchDelete | Kind::DeleteRange => {
                false
            }
        }
    }
}

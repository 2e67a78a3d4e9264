//! An apply that dies, fails, is gone on with or taken back: from the first write on one can go forward or back at any
//! instant, and no server starts in between.

mod deaths;
mod undoing;

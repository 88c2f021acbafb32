//! Timings and the machine's floors.

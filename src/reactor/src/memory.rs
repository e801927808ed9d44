//! Memory that is free goes back to the kernel.

/// Gives back what the calling thread's part of the allocator holds and nobody uses: also what other threads have freed of it,
/// which only its owner can give back. It takes about a millisecond for each 100 MB. Where another allocator is at work it does
/// nothing.
pub fn give_back_memory() {
    // SAFETY: it takes no memory of ours; any thread may call it at any time.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

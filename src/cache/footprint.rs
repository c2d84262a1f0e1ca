//! The memory that an allocation takes.

/// Sizes up to this have a block of their size, rounded up to 16 bytes.
const FINE_GRAINED: usize = 128;

/// Bytes that the allocator reserves for an allocation of `size` bytes, with the counters of an `Arc` or `Bytes`.
///
/// mimalloc has four sizes of blocks for each power of two (`mi_good_size`), so an allocation takes up to a quarter more than its
/// size.
#[must_use]
pub(super) fn allocated(size: usize) -> usize {
    const COUNTERS: usize = 2 * size_of::<usize>();
    let size = size + COUNTERS;
    if size <= FINE_GRAINED {
        return size.next_multiple_of(COUNTERS);
    }
    size.next_multiple_of(1 << (size.ilog2() - 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocation_takes_a_block_of_the_next_size() {
        for (size, block) in [(0, 16), (1, 32), (112, 128), (113, 160), (240, 256), (5_018, 5_120), (5_120, 6_144)] {
            assert_eq!(allocated(size), block, "{size}");
        }
    }
}

//go:build v8 && linux && (amd64 || arm64)

// The memory of array buffers: counted for each isolate, reused by all.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include <v8.h>

// Blocks is the memory of all array buffers. V8 wants it inside of its sandbox,
// and its own allocator there takes microseconds for a block; so blocks that
// are given back wait here for the next buffer of about their size.
class Blocks {
  public:
	// rounded returns the size of the block for n bytes.
	static size_t rounded(size_t n) {
		if (n <= smallest) return smallest;
		size_t step = std::max(smallest, std::bit_floor(n - 1) / 4);
		return (n + step - 1) & ~(step - 1);
	}

	// take returns a block of a rounded size, or NULL. zero says what must be
	// in it.
	void *take(size_t n, bool zero) {
		void *p = reuse(n);
		if (p == nullptr) return backend->Allocate(n);
		return zero ? memset(p, 0, n) : p;
	}

	// give takes back what take returned.
	void give(void *p, size_t n) {
		if (!keep(p, n)) backend->Free(p, n);
	}

  private:
	static constexpr size_t smallest = 128, largest = 1 << 20, most = 16 << 20;

	// kind numbers the sizes up to largest, of which there are four for each
	// power of two.
	static int kind(size_t n) {
		int width = std::bit_width(n - 1);
		return 4 * width + (((n - 1) << 3 >> width) & 3);
	}

	void *reuse(size_t n) {
		if (n > largest) return nullptr;
		std::lock_guard lock(mutex);
		std::vector<void *> &same = kept[kind(n)];
		if (same.empty()) return nullptr;
		void *p = same.back();
		same.pop_back();
		total -= n;
		return p;
	}

	bool keep(void *p, size_t n) {
		if (n > largest) return false;
		std::lock_guard lock(mutex);
		if (total + n > most) return false;
		kept[kind(n)].push_back(p);
		total += n;
		return true;
	}

	std::mutex mutex;
	std::vector<void *> kept[4 * 21];
	size_t total = 0; // bytes in kept
	std::unique_ptr<v8::ArrayBuffer::Allocator> backend{v8::ArrayBuffer::Allocator::NewDefaultAllocator()};
};

inline Blocks *blocks; // of this process

// Buffers counts the array buffers of one isolate.
class Buffers : public v8::ArrayBuffer::Allocator {
  public:
	explicit Buffers(size_t limit) : limit(limit) {}

	void *Allocate(size_t n) override { return take(n, true); }
	void *AllocateUninitialized(size_t n) override { return take(n, false); }
	void Free(void *p, size_t n) override {
		blocks->give(p, Blocks::rounded(n));
		used -= Blocks::rounded(n);
	}

	// over reports whether so many bytes more pass the limit.
	bool over(size_t more) const { return used + heap + more > limit; }

	const size_t limit;
	std::atomic<size_t> used{0}; // bytes in buffers
	size_t heap = 0;             // bytes on the heap after its last collection
	bool refused = false;        // the last allocation was

  private:
	void *take(size_t n, bool zero) {
		size_t size = Blocks::rounded(n);
		refused = n > limit || over(size);
		if (refused) return nullptr; // the engine collects garbage and tries again
		void *p = blocks->take(size, zero);
		refused = p == nullptr;
		if (!refused) used += size;
		return p;
	}
};

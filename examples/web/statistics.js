// Frame rate and latency of the last frames.

const KEPT = 120;
const RATE_WINDOW = 2000; // ms

/** The value below which this share of the values lies, interpolated as numpy.percentile does. */
export function percentile(values, share) {
  const sorted = Float64Array.from(values).sort();
  const position = (sorted.length - 1) * share;
  const low = Math.floor(position);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (sorted[high] - sorted[low]) * (position - low);
}

/** What was measured of the frames of one source. */
export class Statistics {
  constructor() {
    this.clear();
  }

  clear() {
    this.segmented = 0;
    this.frames = [];
  }

  /** A frame is on the screen: `stages` holds the milliseconds of each stage, and `total`. */
  add(stages, now = performance.now()) {
    this.segmented += 1;
    this.frames.push({ now, stages });
    if (this.frames.length > KEPT) this.frames.shift();
  }

  /** Frames a second over the last two seconds, or null before the second frame. */
  rate(now = performance.now()) {
    const recent = this.frames.filter((frame) => now - frame.now < RATE_WINDOW);
    if (recent.length < 2) return null;
    const [first, final] = [recent[0].now, recent[recent.length - 1].now];
    return (1000 * (recent.length - 1)) / (final - first);
  }

  /** p50 and p95 of a stage in ms, or null where there is no frame. */
  latency(stage) {
    if (!this.frames.length) return null;
    const values = this.frames.map((frame) => frame.stages[stage]);
    return { p50: percentile(values, 0.5), p95: percentile(values, 0.95) };
  }
}

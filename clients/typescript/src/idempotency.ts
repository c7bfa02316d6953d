/** Return a unique key. It is not a secret, so time and Math.random suffice where secure random numbers are missing. */
export function newIdempotencyKey(): string {
  const bytes = new Uint8Array(16);
  // React Native and Node 18 may lack it
  const source = (globalThis as { crypto?: Partial<Crypto> }).crypto;
  if (source?.getRandomValues) {
    source.getRandomValues(bytes);
  } else {
    for (let i = 0; i < bytes.length; i++) bytes[i] = Math.floor(Math.random() * 256);
    new DataView(bytes.buffer).setFloat64(0, Date.now() + Math.random());
  }
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

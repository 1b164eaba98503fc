// Gives the engine a picture that it can decode. Other formats, such as HEIC and AVIF, are decoded by the browser, if it can, and
// passed on as png.

// The first bytes of png, jpeg, webp, gif and bmp files.
const STARTS = ['\x89PNG', '\xff\xd8\xff', 'RIFF', 'GIF8', 'BM'];

export async function readable(file) {
  const start = String.fromCharCode(...new Uint8Array(await file.slice(0, 4).arrayBuffer()));
  if (STARTS.some((known) => start.startsWith(known))) return file;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    // The engine says what it expects.
    return file;
  }
  const canvas = Object.assign(document.createElement('canvas'), { width: bitmap.width, height: bitmap.height });
  canvas.getContext('2d').drawImage(bitmap, 0, 0);
  bitmap.close();
  const blob = await new Promise((resolve) => { canvas.toBlob(resolve, 'image/png'); });
  return blob ? new File([blob], file.name, { type: blob.type }) : file;
}

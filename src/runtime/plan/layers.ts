/** The directories of lowerdir=a:b\:c. */
export function splitLayers(value: string): string[] {
  const layers: string[] = [];
  let layer = "";
  for (let i = 0; i < value.length; i++) {
    const c = value[i]!;
    if (c === "\\" && i + 1 < value.length) layer += value[++i];
    else if (c === ":") {
      layers.push(layer);
      layer = "";
    } else layer += c;
  }
  layers.push(layer);
  return layers;
}

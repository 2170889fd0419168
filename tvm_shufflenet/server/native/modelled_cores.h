// Several cores of the emulated device: TVM's parallel regions, done one share after the other.
#pragma once

// From now on, parallel regions are cut for so many cores, and the plugin is told whose share is being done.
void UseModelledCores(int cores);

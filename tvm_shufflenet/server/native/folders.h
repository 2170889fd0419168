// Removes the folders of sessions, whose contents nobody can be trusted about: modes, depth, names.
#pragma once

#include <string>

// A handle to the folder at `path`, for when it has another name or mode; -1 on failure.
int OpenFolder(const std::string& path);

// Removes the folder if that takes no time: no folders in it and few files. Closes `folder` then.
bool RemoveFolderQuickly(int folder, const std::string& path);

// Removes the folder and whatever is in it, however long that takes, and closes `folder`. What failed is printed.
void RemoveFolderWhole(int folder, const std::string& path);

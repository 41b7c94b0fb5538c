"""The JSON file engine, and the store on it, under attack: processes that are killed, writes that are torn, disks that are full,
locks that are taken away. Everything here works on real files, and where it says process, with real processes.
"""
